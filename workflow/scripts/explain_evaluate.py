from mammoflow.explain import evaluate
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"explain_evaluate {snakemake.wildcards.dataset}", snakemake.output):
        evaluate(
            maps=list(snakemake.input.maps),
            containers=list(snakemake.input.containers),
            images=list(snakemake.input.images),
            index=snakemake.input.index,
            truth=snakemake.input.truth,
            masks=snakemake.input.masks,
            hit_iou=snakemake.params.hit_iou,
            hit_center=snakemake.params.hit_center,
            detections=snakemake.output.detections,
            crops=snakemake.output.crops,
            overlays=snakemake.output.overlays,
        )
