"""What plugin authors and loom's own tests share: doubles, a toy tokenizer, and the conformance kit."""
