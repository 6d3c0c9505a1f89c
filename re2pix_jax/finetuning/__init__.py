"""A model of one's own videos, in one call (`finetune.finetune`): `plan` says what will be done and
what it takes, `parts` tunes one part after the other, `result` holds the tuned model beside the
untuned one. It composes what the other rooms do; each step is done once and gone on behind."""
