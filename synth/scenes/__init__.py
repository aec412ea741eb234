"""Generated scenes: pictures of 64 x 64 pixels with what they show, what can be asked of them, and the answers.

Two of the four quadrants of a scene have a figure: a shape in a colour, or two digits. A model of a million parameters
learns to read it in minutes, if nothing is wrong with how it is fed. `grist sample-data DIR --scenes N` writes, below
`DIR/scenes` (synth/scenes/sample.py; N is 12,000 unless it is said):

| what is there | container, as an input of the vision pipeline | `image.form` | rows |
|---|---|---|---|
| `objects.tar`: a quadrant alone, 32 x 32, and its name: for the warm-up of an encoder | WebDataset | caption | 2 N |
| `captions/metadata.jsonl`: a scene and all that it shows (V1, V2) | `folder::` and its path | caption | N |
| `questions.tar`: a scene and two questions where there are, turn by turn (V3) | WebDataset | chat | N |
| `frames.parquet`: two frames or three pictures, and the same (V4) | Parquet, lists of `image` | chat | N / 2 |
| `reading.jsonl`: the same in words, for a language model: `messages`, `text` | JSON lines, no images | | 2 N |

Each has a `-held-out` beside it in the same container, of `held_out` rows (400), with one question each. What is held
out is decided by a hash of a scene's caption, whatever the seed and the number: no scene of a held-out row, not even
one of its frames, is a scene of training, in pictures or words (a quadrant alone is only drawn anew: there are 133).
Further:

- `captions-withheld/metadata.jsonl`, `questions-withheld.tar`: scenes of nothing but the colour-shape pairs and pairs
  of digits that training never shows and never asks for (`figures.WITHHELD_PAIRS`, `WITHHELD_DIGITS`);
- `captions-faces/metadata.jsonl`: held-out scenes whose digits are of designs that training does not have.

A caption is `top left red circle bottom right text 3 8`, places in that order. Every row has an `id`, and its `kind` as
`source`, which records keep, that of its first question: place, colour, where, digits, there; of frames: frame, same,
changed, which. Answers to all but place, digits and frame come after a thought (`reasoning_content`), which reads what
is compared, figure by figure, and judges each. Pictures with one caption look alike by design, so recipes set
`recipe.min_similarity=null`; crops are of 32 pixels, patches of 8: `recipe.images={max_crops: 4, crop: 32, patch: 8}`
of the mixture, 27 tokens a picture.
"""
