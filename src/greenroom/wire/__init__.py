"""Messages, frames and payloads on the channels between supervisor, zygote and child. Imports neither side."""
