"""What if it is real? The bridge to hardware; its place is kept, the bridge itself is the fourth issue."""
