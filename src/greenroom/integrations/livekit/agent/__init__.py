"""Agent side: modules that the zygote and its children run for a livekit-agents app."""
