"""How long steps take: rates assumed, calibrated on a machine and measured in a folder; and what plans say of them."""
