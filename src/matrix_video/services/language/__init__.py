"""A language model on any OpenAI-compatible server: typed replies, each paid for once."""
