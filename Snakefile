"""The map of a study: raw directories -> index -> labels -> images -> detect -> crops -> classify -> explain -> anatomy -> report.

README.md names the targets; config.yaml holds every choice.
"""


configfile: f"{workflow.basedir}/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/phantom.smk"
include: "workflow/rules/index.smk"
include: "workflow/rules/labels.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/detect.smk"
include: "workflow/rules/crops.smk"
include: "workflow/rules/mining.smk"
include: "workflow/rules/classify.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/anatomy.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/diagnose.smk"
include: "workflow/rules/verify.smk"


rule all:
    default_target: True
    input:
        "results/report/index.html",
        "results/report/metrics.json",
        rules.figures.input,


rule index:
    input:
        expand("results/index/{dataset}.tsv", dataset=DATASETS),


rule images:
    input:
        shards("results/images/{dataset}/{shard}.tsv", DATASETS),


rule detections:
    input:
        blocks(
            "results/detect/{detector}/{dataset}/{block}.tsv",
            DATASETS,
            detector=DETECTORS,
        ),


rule crops:
    input:
        shards(
            "results/crops/{protocol}/{dataset}/{shard}.tsv",
            DATASETS,
            protocol=PROTOCOLS,
        ),


rule predictions:
    input:
        expand(
            "results/classify/{protocol}/{classifier}/{dataset}.tsv",
            protocol=PROTOCOLS,
            classifier=CLASSIFIERS,
            dataset=DATASETS,
        ),
