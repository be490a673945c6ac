"""What the web page looks like, in Gradio: four tabs over a `Desk`. Called by `marginface demo`.

Nothing leaves the machine: no analytics, no fonts from elsewhere, and the copies that Gradio keeps of photographs lie
in a folder that goes with the server.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from marginface.demo.desk import Desk, far_in_words
from marginface.detection.base import load_library
from marginface.errors import InputError

HEADERS = ["name", "similarity", "nearest", "sharpness"]
SOURCES = ["upload", "webcam", "clipboard"]
CSS = "@media (max-width: 640px) { .gradio-container { padding: 4px !important } button { min-height: 44px } }"


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
        slider = gradio.Slider(-1, 1, threshold, step=0.005, label="threshold of similarity", elem_id="threshold")
        far = gradio.Markdown(far_in_words(threshold, thresholds), elem_id="far")
        slider.change(lambda value: far_in_words(value, thresholds), slider, far, api_name="far")
        with gradio.Tab("Recognise"):
            _recognise(gradio, desk, slider)
        with gradio.Tab("Enrol"):
            _enrol(gradio, desk)
        with gradio.Tab("Compare"):
            _compare(gradio, desk, slider)
        with gradio.Tab("Why?"):
            _explain(gradio, desk, slider)
    return page


def _recognise(gradio: Any, desk: Desk, threshold: Any) -> None:
    photo = _photo(gradio, "photograph", "photo")
    blur = gradio.Slider(0, 12, 0, step=0.5, label="blur (pixels)")
    picture = gradio.Image(label="who is in it", interactive=False, elem_id="answer", format="png")
    table = gradio.Dataframe(headers=HEADERS, label="faces", interactive=False, wrap=True, elem_id="table")
    work = _told(gradio, desk.recognise)

    def recognise(path: str | None, value: float, deviation: float) -> Any:
        return work(path, value, deviation) if path else (None, [])

    for thing in (photo, threshold, blur):
        name = "recognise" if thing is photo else False
        thing.change(recognise, [photo, threshold, blur], [picture, table], api_name=name)


def _enrol(gradio: Any, desk: Desk) -> None:
    photo = _photo(gradio, "photograph of one person", "enrol-photo")
    name = gradio.Textbox(label="name", elem_id="name", max_lines=1)
    add = gradio.Button("Enrol", variant="primary", elem_id="enrol")
    people = gradio.Dropdown(desk.names, label="enrolled", elem_id="people")
    gone = gradio.Button("Erase this person", variant="stop", elem_id="erase")
    told = gradio.Markdown(elem_id="told")

    def enrol(path: str | None, given: str) -> Any:
        if not path or not given.strip():
            raise gradio.Error("Give a photograph and a name.")
        return _told(gradio, desk.enrol)(path, given), gradio.Dropdown(desk.names)

    def erase(given: str | None) -> Any:
        if not given:
            raise gradio.Error("Choose a person first.")
        return _told(gradio, desk.erase)(given), gradio.Dropdown(desk.names, value=None)

    add.click(enrol, [photo, name], [told, people], api_name="enrol")
    name.submit(enrol, [photo, name], [told, people], api_name=False)
    gone.click(erase, people, [told, people], api_name="erase")


def _compare(gradio: Any, desk: Desk, threshold: Any) -> None:
    with gradio.Row():
        first = _photo(gradio, "one photograph", "first")
        second = _photo(gradio, "another", "second")
    button = gradio.Button("Compare", variant="primary")
    told = gradio.Markdown(elem_id="compared")
    faces = gradio.Gallery(label="as the network sees them", columns=2, height="auto", format="png")

    def compare(one: str | None, other: str | None, value: float) -> Any:
        if not one or not other:
            raise gradio.Error("Give two photographs.")
        return _told(gradio, desk.compare)(one, other, value)

    button.click(compare, [first, second, threshold], [told, faces], api_name="compare")


def _explain(gradio: Any, desk: Desk, threshold: Any) -> None:
    photo = _photo(gradio, "photograph", "why-photo")
    button = gradio.Button("Why?", variant="primary")
    told = gradio.Markdown(elem_id="why")
    faces = gradio.Gallery(label="nearest enrolled pictures", columns=3, height="auto", format="png")

    def explain(path: str | None, value: float) -> Any:
        if not path:
            raise gradio.Error("Give a photograph.")
        return _told(gradio, desk.explain)(path, value)

    button.click(explain, [photo, threshold], [told, faces], api_name="explain")


def _photo(gradio: Any, label: str, name: str) -> Any:
    return gradio.Image(type="filepath", image_mode=None, sources=SOURCES, label=label, elem_id=name)


def _told(gradio: Any, work: Callable[..., Any]) -> Callable[..., Any]:
    """What cannot be used is answered on the page, by the sentence."""

    def answered(*words: Any) -> Any:
        try:
            return work(*words)
        except InputError as error:
            raise gradio.Error(str(error)) from error

    return answered
