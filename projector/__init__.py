"""Group state for Tencent Cloud Chat, projected from its webhook callbacks."""

__version__ = "0.1.0"
