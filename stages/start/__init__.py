"""What a stage of training needs made before it starts: parts under another name, the scale of its clips."""
