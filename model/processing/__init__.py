"""The form of the model's input: one module a modality. A new modality is one file here and one in `model/`."""
