"""What the web page looks like, in Gradio: four tabs over a `Desk`. Called by `server`.

Names, file names and error texts are escaped wherever Gradio would take them for Markdown or HTML.
"""

import base64
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from marginface.demo.desk import Desk, far_in_words
from marginface.demo.photographs import LARGEST, TOO_LARGE, UNSEEN, Photographs, check
from marginface.errors import InputError
from marginface.gallery.people import UNKNOWN
from marginface.gallery.photos import Photograph, small_picture

HEADERS = ["name", "similarity", "nearest", "sharpness"]
SOURCES = ["upload", "clipboard"]
BUTTONS = ["download", "fullscreen"]  # not Gradio's "share", which puts a picture on the Web
SIGN = re.compile(r"[!-/:-@\[-`{-~]")  # the characters of ASCII that could be markup
SIDE = 1600  # pixels of the longer side of the picture that is sent back
SCRIPT = f"""
Object.defineProperty(File.prototype, 'type', {{ get: () => 'image/*' }})
const send = window.fetch
window.fetch = (address, how) => [...(how?.body instanceof FormData ? how.body.values() : [])].some(
  file => file.size > {LARGEST}) ? Promise.resolve(new Response('["{TOO_LARGE}"]')) : send(address, how)
"""
"""Lets every file through to the server, whose answer is better: Gradio's own shows the file's name as HTML. One that
is too large is not sent, and the server is told so: Gradio would show the number of the refusal."""
# no @media for what lies outside of the page's middle: Gradio narrows those rules to it
CSS = """
.fillable { max-width: 1180px !important; padding-inline: clamp(10px, 3vw, 32px) !important }
#head h1 { margin: 0 0 2px; font-size: 26px; letter-spacing: -0.02em }
#head p, #faces caption { color: var(--body-text-color-subdued) }
#far { background: var(--block-background-fill); padding: 0 14px 12px }
.tab-container button { padding-inline: clamp(6px, 2.4vw, 16px) !important; font-weight: 500 }
button.lg, .tab-container button { min-height: 44px }
.source-selection { height: auto !important; padding: 2px !important; gap: 4px }
.source-selection .icon { width: 44px !important; height: 44px !important; padding: 12px; border-radius: 8px }
.source-selection .icon:hover { background: var(--background-fill-secondary) }
.icon-button-wrapper .icon-button { min-width: 40px; min-height: 40px; justify-content: center }
.tab-like-container { height: 40px }
.reset-button { min-width: 40px }
[data-testid=status-tracker]:has(> .error) { display: none }
input[type=range] { min-height: 24px; border-radius: 6px }
input[type=range]:focus-visible { outline: 3px solid var(--focus) !important; outline-offset: 4px }
button:focus-visible, a:focus-visible, input[type=number]:focus-visible {
  outline: 3px solid var(--focus) !important; outline-offset: 2px
}
:root { --focus: #1d4ed8; --danger: #b42318; --known: #17703a }
.dark { --focus: #93c5fd; --danger: #ff9c92; --known: #6fd996 }
#erase { background: transparent; color: var(--danger); border: 1.5px solid var(--danger) }
#erase:hover { background: #b4231818 }
#sure { border: 1.5px solid var(--danger); border-radius: 8px; padding: 14px; gap: 12px }
input[type=range]::-webkit-slider-thumb { box-shadow: 0 0 0 1.5px #8a94a3 !important }
input[type=range]::-moz-range-thumb { box-shadow: 0 0 0 1.5px #8a94a3 !important }
[id$=-notice]:not(:has(p)) { display: none !important }
[id$=-notice] p { color: var(--danger); overflow-wrap: anywhere }
#told p, #erased p, #compared p, #why p { font-weight: 600; overflow-wrap: anywhere }
#sure p { overflow-wrap: anywhere }
#faces table { width: 100%; border-collapse: collapse; font-size: clamp(13px, 2vw, 15px) }
#faces caption { text-align: left }
#faces table, #faces tr { border: 0 }
#faces th, #faces td { border: 0; border-bottom: 1px solid #8886; padding: 6px 12px 6px 0 }
#faces th, #faces td { text-align: left; vertical-align: top }
#faces bdi { overflow-wrap: anywhere }
#faces th { font-weight: 500; color: var(--body-text-color-subdued); white-space: nowrap }
#faces td div + div { margin-top: 4px }
#faces td:first-child { font-weight: 600 }
#faces .known td:first-child * { color: var(--known) }
#faces .unknown td:first-child * { color: var(--danger) }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 12px }
.figures figure { margin: 0; max-width: 160px; overflow-wrap: anywhere; font-size: 13px; line-height: 1.3 }
.figures img { width: 100%; margin: 0 0 4px; border-radius: 8px }
"""


def make_theme(gradio: Any) -> Any:
    """Fonts of the system, and red for what cannot be undone."""
    red = {"background_fill": "#b42318", "background_fill_hover": "#8f1c13", "text_color": "#ffffff"}
    danger = {f"button_cancel_{part}{dark}": colour for part, colour in red.items() for dark in ("", "_dark")}
    theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"], radius_size="lg")
    return theme.set(
        body_background_fill="#f6f7f9",
        block_background_fill="#ffffff",
        body_text_color_subdued="#5b6472",
        body_text_color_subdued_dark="#a8b0bb",
        **danger,
    )


def make_page(
    gradio: Any,
    desk: Desk,
    photographs: Photographs,
    threshold: float,
    thresholds: Mapping[float, float],
    camera: bool,
) -> Any:
    """Gradio's Blocks. camera: offer the visitor's; browsers have one for pages of their own machine only."""

    def far(value: float) -> str:
        return _paragraph(far_in_words(value, thresholds))

    with gradio.Blocks(title="marginface", analytics_enabled=False) as page:
        gradio.Markdown(
            "# Who is it?\nPhotographs stay in the memory of the machine that serves this page.", elem_id="head"
        )
        with gradio.Group():
            slider = gradio.Slider(0, 1, threshold, step=0.001, label="threshold of similarity", elem_id="threshold")
            text = gradio.Markdown(far(threshold), elem_id="far", padding=True)
        slider.change(far, slider, text, api_name="far", show_progress="hidden", queue=False)
        form = _Form(gradio, desk, photographs, slider, ["upload", "webcam", "clipboard"] if camera else SOURCES)
        with gradio.Tab("Recognise"):
            form.recognise()
        with gradio.Tab("Enrol"):
            form.enrol(page)
        with gradio.Tab("Compare"):
            form.compare()
        with gradio.Tab("Why?"):
            form.explain()
    return page


@dataclass(frozen=True)
class _Form:
    """The four tabs."""

    gradio: Any
    desk: Desk
    photographs: Photographs
    threshold: Any
    sources: list[str]

    def recognise(self) -> None:
        with self.gradio.Row():
            with self.gradio.Column():
                photo, check = self._photo("photograph", "photo")
                blur = self.gradio.Slider(0, 12, 0, step=0.5, label="blur (pixels)", elem_id="blur")
            with self.gradio.Column():
                picture = self.gradio.Image(
                    label="who is in it", interactive=False, elem_id="answer", buttons=BUTTONS, show_label=True
                )
                faces = self._html(elem_id="faces")
        picture.postprocess = _data_url  # Gradio would keep a file of it

        def recognise(photograph: Photograph | None, value: float, deviation: float) -> tuple[Any, str]:
            if photograph is None:
                return None, ""
            drawn, rows = self.desk.recognise(photograph, value, deviation)
            return drawn, _table(rows)

        checked = check(picture, faces)
        for event in (checked, self.threshold.change, blur.change):
            event(
                self._answered(recognise),
                [photo, self.threshold, blur],
                [picture, faces],
                api_name="recognise" if event is checked else False,
                show_progress="full" if event is checked else "hidden",
                trigger_mode="always_last",  # a slider that is dragged asks often
            )

    def enrol(self, page: Any) -> None:
        gradio, desk = self.gradio, self.desk
        with gradio.Row():
            with gradio.Column():
                photo, check = self._photo("photograph of one person", "enrol-photo")
                name = gradio.Textbox(label="name", elem_id="name", max_lines=1)
                add = gradio.Button("Enrol", variant="primary", elem_id="enrol")
                told = self._html(elem_id="told")
            with gradio.Column():
                people = gradio.Dropdown(
                    desk.names,
                    value=None,
                    label="enrolled",
                    elem_id="people",
                    allow_custom_value=True,  # of those enrolled since this list was made the desk knows
                )
                gone = gradio.Button("Erase this person …", elem_id="erase")
                with gradio.Column(visible=False, elem_id="sure") as sure:
                    question = self._html()
                    with gradio.Row():
                        yes = gradio.Button("Erase", variant="stop", elem_id="erase-yes")
                        no = gradio.Button("Keep", elem_id="erase-no")
                erased = self._html(elem_id="erased")

        def enrol(photograph: Photograph | None, given: str | None) -> tuple[str, Any, None, str]:
            if photograph is None or not (given or "").strip():
                raise InputError("Give a photograph and a name.")
            return _paragraph(desk.enrol(photograph, str(given))), gradio.Dropdown(desk.names), None, ""

        def erase(given: Any) -> tuple[str, Any, Any]:
            text = desk.erase(_chosen(given))
            return _paragraph(text), gradio.Dropdown(desk.names, value=None), gradio.Column(visible=False)

        def ask(given: Any) -> tuple[str, Any, str]:
            text = f"Erase {_chosen(given)} and all that is stored of them? This cannot be undone."
            if given not in desk.names:
                raise InputError(f"{given} is not enrolled; choose a person from the list.")
            return _paragraph(text), gradio.Column(visible=True), ""

        def hide() -> Any:
            return gradio.Column(visible=False)

        quiet = {"api_name": False, "show_progress": "hidden"}
        check()
        add.click(self._answered(enrol), [photo, name], [told, people, photo, name], api_name="enrol")
        name.submit(self._answered(enrol), [photo, name], [told, people, photo, name], api_name=False)
        gone.click(self._answered(ask), people, [question, sure, erased], **quiet)
        yes.click(self._answered(erase), people, [erased, people, sure], api_name="erase")
        no.click(hide, None, sure, **quiet, queue=False)
        people.change(hide, None, sure, **quiet, queue=False)
        page.load(lambda: gradio.Dropdown(desk.names, value=None), None, people, **quiet, queue=False)

    def compare(self) -> None:
        with self.gradio.Row():
            with self.gradio.Column():
                first, check = self._photo("one photograph", "first")
                check()
            with self.gradio.Column():
                second, check = self._photo("another", "second")
                check()
        button = self.gradio.Button("Compare", variant="primary", elem_id="compare")
        told = self._html(elem_id="compared")
        faces = self._html(elem_id="pair")

        def compare(one: Photograph | None, other: Photograph | None, value: float) -> tuple[str, str]:
            if one is None or other is None:
                raise InputError("Give two photographs.")
            text, pictures = self.desk.compare(one, other, value)
            return _paragraph(text), _figures(list(zip(pictures, ("one photograph", "another"), strict=True)))

        button.click(self._answered(compare), [first, second, self.threshold], [told, faces], api_name="compare")

    def explain(self) -> None:
        photo, check = self._photo("photograph", "why-photo")
        check()
        button = self.gradio.Button("Why?", variant="primary", elem_id="explain")
        told = self._html(elem_id="why")
        faces = self._html(elem_id="reasons")

        def explain(photograph: Photograph | None, value: float) -> tuple[str, str]:
            if photograph is None:
                raise InputError("Give a photograph.")
            text, pictures = self.desk.explain(photograph, value)
            return _paragraph(text), _figures(pictures)

        button.click(self._answered(explain), [photo, self.threshold], [told, faces], api_name="explain")

    def _html(self, elem_id: str | None = None) -> Any:
        """A place for HTML; Gradio's own for it evaluates templates in the browser, which the policy forbids."""
        return self.gradio.Markdown(elem_id=elem_id, latex_delimiters=[], padding=False)

    def _photo(self, label: str, name: str) -> tuple[Any, Callable[..., Any]]:
        """A place for a photograph, whose value is a Photograph, and what has it checked whenever it changes.

        The latter takes what is to be emptied then, and returns the event after which that may be filled again.
        """
        photo = self.gradio.Image(sources=self.sources, label=label, elem_id=name, buttons=BUTTONS)
        # no handler may return an update of it: Gradio would make another of its class
        photo.data_model = None  # what comes is the name of an upload: nothing that Gradio would open
        photo.api_info = lambda: {"type": "object", "description": "{'path': what /gradio_api/upload answered}"}
        photo.preprocess = self._answered(
            lambda given: None if given is None else self.photographs.find(dict(given).get("path"))
        )
        notice = self._html(elem_id=f"{name}-notice")

        def changed(*empty: Any) -> Any:
            emptied = dict.fromkeys(empty)

            def look(photograph: Photograph | None) -> dict[Any, Any]:
                if photograph is None:
                    return {notice: self.gradio.skip(), **emptied}
                check(photograph)
                return {notice: "", **emptied}

            def refuse(photograph: Photograph | None) -> dict[Any, Any]:
                try:
                    return {photo: None, **look(photograph)}
                except InputError as error:
                    return {photo: None, notice: _paragraph(str(error)), **emptied}

            # not in Gradio's queue: an event that follows the end of another at once may get lost there
            quiet = {"api_name": False, "show_progress": "hidden", "queue": False}
            checked = photo.change(self._answered(look), photo, [notice, *empty], **quiet)
            checked.failure(refuse, photo, [photo, notice, *empty], **quiet)
            return checked.success

        return photo, changed

    def _answered(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Turns what the visitor can mend into a message on the page; the rest is for the terminal."""

        def answered(*words: Any) -> Any:
            try:
                return work(*words)
            except InputError as error:
                raise self.gradio.Error(_text(str(error)), print_exception=False) from error
            except Exception as error:
                traceback.print_exc()
                text = "This did not work, through no fault of yours; the terminal that serves this page says why."
                raise self.gradio.Error(text, print_exception=False) from error

        return answered


def _chosen(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise InputError("Choose a person first.")
    return name


def _text(text: str) -> str:
    """What shows the text as it is, as HTML and as Markdown; long names may break at their underscores."""
    return SIGN.sub(lambda sign: f"&#{ord(sign[0])};", UNSEEN.sub("\ufffd", text)).replace("&#95;", "&#95;<wbr>")


def _paragraph(text: str) -> str:
    return f"<p>{_text(text)}</p>"


def _table(rows: list[tuple[str, str, list[str], str]]) -> str:
    """HTML of what `Desk.recognise` says of the faces."""
    if not rows:
        return _paragraph("No face was found; try a photograph that shows it larger and from the front.")
    head = "".join(f'<th scope="col">{header}</th>' for header in HEADERS)
    body = "".join(
        f'<tr class="{UNKNOWN if name == UNKNOWN else "known"}"><td><bdi>{_text(name)}</bdi></td>'
        f"<td>{_text(similarity)}</td><td>{''.join(f'<div><bdi>{_text(line)}</bdi></div>' for line in nearest)}</td>"
        f"<td>{_text(sharpness)}</td></tr>"
        for name, similarity, nearest, sharpness in rows
    )
    return f"<table><caption>faces</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _figures(pictures: list[tuple[np.ndarray, str]]) -> str:
    """HTML of faces, RGB uint8, with a line under each; the pictures lie in it."""
    figures = []
    for picture, caption in pictures:
        data = base64.b64encode(small_picture(picture)).decode()
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{data}" alt="">'
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )
    return f'<div class="figures">{"".join(figures)}</div>'


def _data_url(image: np.ndarray | None) -> dict[str, str] | None:
    """RGB uint8 as Gradio's Image takes it, with the picture itself for an address; at most SIDE pixels."""
    if image is None:
        return None
    scale = min(1.0, SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    address = "data:image/jpeg;base64," + base64.b64encode(np.asarray(encoded).tobytes()).decode()
    return {"path": "faces.jpg", "orig_name": "faces.jpg", "url": address}
