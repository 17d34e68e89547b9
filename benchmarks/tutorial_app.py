"""The peer: zero-shot classification as tutorials write it, with Gradio around the transformers pipeline.

python benchmarks/tutorial_app.py PORT FOLDER
"""

import sys

import gradio as gr
from PIL import Image
from transformers import pipeline

port, folder = int(sys.argv[1]), sys.argv[2]
classifier = pipeline("zero-shot-image-classification", model=folder)


def classify(image: Image.Image, labels: str) -> dict[str, float]:
    names = [label.strip() for label in labels.split(",") if label.strip()]
    return {result["label"]: result["score"] for result in classifier(image, candidate_labels=names)}


gr.Interface(
    classify,
    [gr.Image(type="pil"), gr.Textbox(label="Labels")],
    gr.Label(),
    title="CLIP zero-shot classification",
    api_name="classify",
    analytics_enabled=False,
    concurrency_limit=2,  # its best here; the default of 1 gives less
).launch(server_name="127.0.0.1", server_port=port)
