"""How metrics are made and served; private, see ``metrics``."""
