"""The front end: from messages with pictures and videos to token ids and patches. No torch model here."""
