"""Behind ``timebase``: the kernel's clock as it is disciplined, and whether the counter is fit and went on."""
