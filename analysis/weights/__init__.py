"""Updates as low-rank factors: their sizes, angles and spectra, beside each other, chance and the base weights."""
