"""What a program does about restores; private, see ``restore``."""
