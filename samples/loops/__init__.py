"""Training loops of one's own around a super-network: plain PyTorch, Lightning, and Hugging Face."""
