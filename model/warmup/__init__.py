"""Stand-ins for pretrained encoders: objectives that warm one up from nothing."""
