"""A provider on this machine: speech, hearing, dialogue and a realtime model, behind OpenAI's own API."""
