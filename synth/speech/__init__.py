"""Generated speech: clips of digits, phrases and questions in several voices, with what is said in them.

espeak-ng says them (the extra `speech`: `pip install 'gristmill[speech]'`); the same seed gives the same samples of the
same release on one kind of machine. `grist sample-data DIR --speech N` writes, below `DIR/speech`
(synth/speech/sample.py), mono clips of 16 bits and 22,050 Hz:

| what is there | an input of the speech pipeline | `audio.task` | rows |
|---|---|---|---|
| `digits.tar`: 3 to 5 digits, and their transcript, `4 2 7` | WebDataset, FLAC | asr | N |
| `phrases/metadata.jsonl`: what scenes show, and questions about them | `folder::` and its path, WAV | asr | N / 2 |
| `scenes.tar`: a picture and a spoken question about it | WebDataset, FLAC and PNG | sqqa | N / 2 |
| `questions.parquet`: a spoken question about digits, and the answer | Parquet, `audio`, FLAC | sqqa | N / 4 |
| `translations.parquet`: lists of words in eight languages, in another one | Parquet | ast, ast_cot | N / 10 |
| `listening/metadata.jsonl`: a written question about digits that are said | `folder::` | sqa | N / 10 |
| `sounds.tar`: a question about pace, pitch or loudness | WebDataset | understanding | N / 10 |
| `reports.parquet`: 6 to 12 sentences (now and then 60 to 90), and what holds at the end | Parquet | summary | N / 50 |
| `hearing.jsonl`: the first four told in words: `question`, `answer`, `text` | JSON lines, no clips | | 2 N |

Each has, in the same container, a `-held-out` beside it of `held_out` rows (240, or N / 8 if that is less, or as many
as there are to train on): sentences that no row to train on says, decided by a hash of the sentence, whatever the seed
and the number; of pictures it is the scene. The first four have a `-voices` too, of as many held-out sentences in three
voices of which training has none (`voices.HELD_OUT_VOICES`; it has ten others).

Every row has an `id`, its kind as `source`, its `language` and its `voice`. Ask for transcripts as `hearing.jsonl`
does: `recipe.audio.prompts=["What is said?"]`; and since many clips say the same in another voice, as they should, set
`recipe.min_similarity=null`. Pictures are taken with `recipe.audio.max_images=1`, long reports with
`recipe.clip.max_seconds=1800`.
"""
