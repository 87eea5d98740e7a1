"""What goes over the channels between supervisor, zygote and child. Imports neither side."""
