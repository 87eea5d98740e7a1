"""Flight recorder: it keeps the latest events and decisions of the core, and replays them."""
