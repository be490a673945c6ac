"""What the web page looks like, in Gradio: four tabs over a `Desk`. Called by `marginface demo`.

Nothing leaves the machine: no analytics, no fonts from elsewhere, and the copies that Gradio keeps of photographs lie
in a folder that goes with the server.
"""

import base64
import html
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from marginface.demo.desk import Desk, far_in_words
from marginface.detection.base import load_library
from marginface.errors import InputError
from marginface.gallery.people import UNKNOWN
from marginface.gallery.photos import small_picture

HEADERS = ["name", "similarity", "nearest", "sharpness"]
SOURCES = ["upload", "webcam", "clipboard"]
BUTTONS = ["download", "fullscreen"]  # not Gradio's "share", which puts a picture on the Web
# no @media for what lies outside of the page's middle: Gradio narrows those rules to it
CSS = """
.fillable { padding-inline: clamp(10px, 3vw, 32px) !important }
.tab-container button { padding-inline: clamp(6px, 2.4vw, 16px) !important }
button.lg, .tab-container button { min-height: 44px }
#faces table { width: 100%; border-collapse: collapse; font-size: clamp(13px, 2vw, 15px) }
#faces caption { text-align: left; opacity: 0.7 }
#faces th, #faces td { border: 0; border-bottom: 1px solid #8886; padding: 6px 12px 6px 0 }
#faces td div + div { margin-top: 6px }
#faces th, #faces td { text-align: left; vertical-align: top }
#faces table, #faces tr { border: 0 }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 12px }
.figures figure { margin: 0; max-width: 160px; overflow-wrap: anywhere; font-size: 13px; line-height: 1.3 }
.figures img { width: 100%; margin: 0 0 4px; border-radius: 6px }
#faces td { overflow-wrap: anywhere }
#faces tr td:first-child { font-weight: 600; color: #1d7a3a }
#faces tr.unknown td:first-child { color: #b3402a }
"""


@contextmanager
def serve_page(
    desk: Desk, threshold: float, thresholds: Mapping[float, float], host: str = "127.0.0.1", port: int | None = None
) -> Iterator[str]:
    """Serves the page while the block runs; yields its address. port: None takes a free one from 7860 on."""
    with tempfile.TemporaryDirectory(prefix="marginface-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        gradio = load_library("gradio")
        page = _page(gradio, desk, threshold, thresholds)
        theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                max_file_size="64mb",
                theme=theme,
                css=CSS,
                ssr_mode=False,
            )
        except OSError as error:
            raise InputError(f"port {port} cannot be had ({error}); give another --port") from error
        try:
            yield address
        finally:
            page.close()


def _page(gradio: Any, desk: Desk, threshold: float, thresholds: Mapping[float, float]) -> Any:
    with gradio.Blocks(title="marginface", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gradio.Markdown("# Who is it?\nPhotographs stay on this machine.")
        slider = gradio.Slider(0, 1, threshold, step=0.001, label="threshold of similarity", elem_id="threshold")
        far = gradio.Markdown(far_in_words(threshold, thresholds), elem_id="far")
        slider.change(
            lambda value: far_in_words(value, thresholds), slider, far, api_name="far", show_progress="hidden"
        )
        with gradio.Tab("Recognise"):
            _recognise(gradio, desk, slider)
        with gradio.Tab("Enrol"):
            _enrol(gradio, page, desk)
        with gradio.Tab("Compare"):
            _compare(gradio, desk, slider)
        with gradio.Tab("Why?"):
            _explain(gradio, desk, slider)
    return page


def _recognise(gradio: Any, desk: Desk, threshold: Any) -> None:
    with gradio.Row():
        with gradio.Column():
            photo = _photo(gradio, "photograph", "photo")
            blur = gradio.Slider(0, 12, 0, step=0.5, label="blur (pixels)", elem_id="blur")
        with gradio.Column():
            picture = gradio.Image(
                label="who is in it", interactive=False, elem_id="answer", format="png", buttons=BUTTONS
            )
            faces = gradio.HTML(elem_id="faces")
    work = _told(gradio, desk.recognise)

    def recognise(path: str | None, value: float, deviation: float) -> Any:
        if not path:
            return None, ""
        drawn, rows = work(path, value, deviation)
        return drawn, _table(rows)

    for thing in (photo, threshold, blur):
        thing.change(
            recognise,
            [photo, threshold, blur],
            [picture, faces],
            api_name="recognise" if thing is photo else False,
            show_progress="full" if thing is photo else "hidden",
            trigger_mode="always_last",  # a slider that is dragged asks often
        )


def _table(rows: list[list[str]]) -> str:
    """HTML of what `Desk.recognise` says of the faces."""
    if not rows:
        return "<p>No face was found; try a photograph that shows it larger and from the front.</p>"
    head = "".join(f'<th scope="col">{header}</th>' for header in HEADERS)
    body = "".join(
        f'<tr class="{UNKNOWN if row[0] == UNKNOWN else "known"}">' + "".join(map(_cell, row)) + "</tr>" for row in rows
    )
    return f"<table><caption>faces</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    """A part a line of it; long names may break at their underscores."""
    lines = html.escape(text).replace("_", "_<wbr>").split("\n")
    return "<td>" + (lines[0] if len(lines) == 1 else "".join(f"<div>{line}</div>" for line in lines)) + "</td>"


def _enrol(gradio: Any, page: Any, desk: Desk) -> None:
    with gradio.Row():
        with gradio.Column():
            photo = _photo(gradio, "photograph of one person", "enrol-photo")
            name = gradio.Textbox(label="name", elem_id="name", max_lines=1)
            add = gradio.Button("Enrol", variant="primary", elem_id="enrol")
        with gradio.Column():
            people = gradio.Dropdown(desk.names, label="enrolled", elem_id="people")
            gone = gradio.Button("Erase this person", variant="stop", elem_id="erase")
            told = gradio.Markdown(elem_id="told")

    def enrol(path: str | None, given: str) -> Any:
        if not path or not given.strip():
            raise gradio.Error("Give a photograph and a name.")
        return _told(gradio, desk.enrol)(path, given), gradio.Dropdown(desk.names), None

    def erase(given: str | None) -> Any:
        if not given:
            raise gradio.Error("Choose a person first.")
        return _told(gradio, desk.erase)(given), gradio.Dropdown(desk.names, value=None)

    add.click(enrol, [photo, name], [told, people, photo], api_name="enrol")
    name.submit(enrol, [photo, name], [told, people, photo], api_name=False)
    gone.click(erase, people, [told, people], api_name="erase")
    page.load(lambda: gradio.Dropdown(desk.names, value=None), None, people, api_name=False, show_progress="hidden")


def _compare(gradio: Any, desk: Desk, threshold: Any) -> None:
    with gradio.Row():
        first = _photo(gradio, "one photograph", "first")
        second = _photo(gradio, "another", "second")
    button = gradio.Button("Compare", variant="primary", elem_id="compare")
    told = gradio.Markdown(elem_id="compared")
    faces = gradio.HTML(elem_id="pair")

    def compare(one: str | None, other: str | None, value: float) -> Any:
        if not one or not other:
            raise gradio.Error("Give two photographs.")
        told, pictures = _told(gradio, desk.compare)(one, other, value)
        return told, _figures(list(zip(pictures, ("one photograph", "another"), strict=True)))

    button.click(compare, [first, second, threshold], [told, faces], api_name="compare")


def _explain(gradio: Any, desk: Desk, threshold: Any) -> None:
    photo = _photo(gradio, "photograph", "why-photo")
    button = gradio.Button("Why?", variant="primary", elem_id="explain")
    told = gradio.Markdown(elem_id="why")
    faces = gradio.HTML(elem_id="reasons")

    def explain(path: str | None, value: float) -> Any:
        if not path:
            raise gradio.Error("Give a photograph.")
        told, pictures = _told(gradio, desk.explain)(path, value)
        return told, _figures(pictures)

    button.click(explain, [photo, threshold], [told, faces], api_name="explain")


def _photo(gradio: Any, label: str, name: str) -> Any:
    return gradio.Image(type="filepath", image_mode=None, sources=SOURCES, label=label, elem_id=name, buttons=BUTTONS)


def _figures(pictures: list[tuple[np.ndarray, str]]) -> str:
    """HTML of faces, RGB uint8, with a line under each; the pictures lie in it."""
    figures = []
    for picture, caption in pictures:
        data = base64.b64encode(small_picture(picture)).decode()
        text = html.escape(caption).replace("_", "_<wbr>")
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{data}" alt="{html.escape(caption)}">'
            f"<figcaption>{text}</figcaption></figure>"
        )
    return f'<div class="figures">{"".join(figures)}</div>'


def _told(gradio: Any, work: Callable[..., Any]) -> Callable[..., Any]:
    """What cannot be used is answered on the page, by the sentence."""

    def answered(*words: Any) -> Any:
        try:
            return work(*words)
        except InputError as error:
            raise gradio.Error(str(error)) from error

    return answered
