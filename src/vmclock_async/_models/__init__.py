"""Behind ``models``: bodies, updates, snapshots, and the ranges of their fields."""
