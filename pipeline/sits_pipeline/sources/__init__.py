"""Sources of scenes: static STAC catalogues, folders of SAFE products, a simulated archive."""
