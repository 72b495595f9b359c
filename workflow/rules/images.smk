"""Images. Needs the index and the shard plan. Gives windowed pictures, full size and training size, and their geometry, by shard."""


rule images_convert:
    input:
        plan=ancient(plan),
        index=ancient("results/index/{dataset}.tsv"),
        sources=ancient("results/index/{dataset}.sources.tsv"),
        patients=ancient("results/labels/patients.tsv"),
    output:
        table="results/images/{dataset}/{shard}.tsv",
        pictures=directory("results/images/{dataset}/{shard}"),
    log:
        "results/logs/images_convert/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/images_convert/{dataset}/{shard}.tsv"
    conda:
        "../../envs/images.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(120),
    params:
        dataset=of_dataset("name", "source", "root", "window"),
        settings=setting("images"),
        mask_labels=setting("deidentify", "mask_labels"),
        planned=planned("images"),
        code=code_digest("images"),
    script:
        "../scripts/images_convert.py"
