"""Phi-4-Multimodal: a decoder, encoders of images and speech, adapters that each token chooses."""
