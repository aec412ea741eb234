"""What a stage of training will need, before it starts: rehearsed on shapes, its operations tried out here."""
