"""How a cube comes to be: from Sentinel-2 scenes and crop parcels to a sharded Zarr time series."""
