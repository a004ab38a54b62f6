"""What things are: regions, parcel sources, taxonomies, Sentinel-2 facts and the contract of a cube."""
