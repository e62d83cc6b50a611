"""A virtual machine with a real /dev/vmclock0, booted, checked from within and migrated: ``make guest-test``."""
