"""The paper's ablation in miniature, on the shipped tiny pipeline; see ``runs/ablation-tiny.sh``.

settings.json   everything that is chosen, frozen before the run; results carry its hash
settings        reads it, and scales it down for pilots
rows            the rows of the table, and in which order they are made
work            trains, samples and scores one row with one training seed
results         the small files that stay, one for each row and training seed
intervals       intervals over training seeds and prompts, and what they can resolve
table           results → markdown and JSON, with the paper's numbers
__main__        run, table, plan
"""
