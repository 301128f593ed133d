import copy
import json
import re
from html.parser import HTMLParser

import pytest

from kdjax.errors import UserError
from kdjax.report import html, statistics, summary_text
from kdjax.report.records import RunRecord, with_titles
from kdjax.report.results import RunSummary, from_json

# HTML elements without an end tag.
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Tracks the open elements and collects text, links and sources."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.links, self.ids = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action")]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def _page(name, report, metrics):
    return html.page([RunRecord(name, from_json(RunSummary, report), metrics=metrics)])


def _save(workdir, report, metrics):
    workdir.mkdir()
    (workdir / "report.json").write_text(json.dumps(report))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))


def test_the_page_is_complete_and_fetches_nothing(tmp_path, report, build_metrics):
    _save(tmp_path / "run", report, build_metrics(report))
    path = html.write(tmp_path / "run")
    assert path == tmp_path / "run/report.html"
    text = path.read_text()
    reader = _read(text)
    assert all(link.startswith("#") for link in reader.links)
    assert not re.search(r"url\((?!#)|@import|<script|<link|<img", text)
    # The only addresses are XML namespaces.
    assert set(re.findall(r"https?://[^\s\"<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    page_text = " ".join(reader.text)
    for expected in (report["title"], report["command"], "abc1234", "learning_rate", "Bold: the"):
        assert expected in page_text
    # Sweep, accuracy and NLL for two roles; one reliability diagram for each variant and role; the
    # student's accuracy against its ECE (two variants only train the teacher).
    assert reader.tags.count("svg") == 2 + 4 + 6 + 1
    assert "not complete" not in page_text
    anchors = {link[1:] for link in reader.links}
    assert anchors <= set(reader.ids)


def test_markup_in_names_is_escaped(report, build_metrics):
    hostile = "_</td><script>alert('$x^$')</script>&amp;\"'"
    report["title"] = report["command"] = report["config"]["a"] = hostile
    report["variants"][1]["name"] = report["data"]["name"] = hostile
    for key in ("roles", "chosen", "reliability"):
        report["variants"][2][key]["<b>$"] = report["variants"][2][key]["student"]
    metrics = (
        build_metrics(report, every=500) if "<b>$" not in report["variants"][2]["roles"] else []
    )
    reader = _read(_page("<i>", report, metrics))
    assert not {"script", "b", "i"} & set(reader.tags)
    # Title (twice), command, config, the tables and the figures' texts.
    assert sum(hostile in text for text in reader.text) > 8


@pytest.mark.parametrize(
    "roles", [("student",), ("student", "peer_a", "peer_b"), ("left", "right")]
)
def test_one_variant_one_member(roles, build_report, build_metrics):
    report = build_report(("default",), roles=roles, sweep={}, seeds=1)
    report["complete"] = False
    metrics = build_metrics(report, every=500)
    for line in metrics:  # a run without variants and sweep mentions neither
        del line["variant"], line["member"], line["seed"]
    reader = _read(_page("x", report, metrics))
    assert "not complete" in " ".join(reader.text)
    assert reader.tags.count("svg") == 3 * len(roles)


def test_two_swept_paths_give_heat_maps_and_three_a_slice(build_report):
    sweep = {"t.temperature": [1.0, 2.0], "t.emphasis": [1.5, 2.0], "t.weight": [0.5, 1.0]}
    report = build_report(("default",), roles=("student",), sweep=sweep, seeds=2)
    held = report["variants"][0]["chosen"]["student"]["values"]["t.weight"]
    assert f"weight {held:g}" in _page("x", report, [])
    del sweep["t.weight"]
    report = build_report(("default",), sweep=sweep, seeds=2)
    report["variants"][0]["reliability"] = {}
    members = report["variants"][0]["members"]
    mean = sum(m["results"]["validation"]["student/accuracy"] for m in members[:2]) / 2
    text = _page("x", report, [])
    assert _read(text).tags.count("svg") == 4  # a heat map and the members' lines, by role
    assert f"{100 * mean:.2f}" in text


def test_a_page_if_all_members_diverged(report, build_metrics):
    for variant in report["variants"]:
        for member in variant["members"]:
            member["diverged"] = "step 3: student/ce is not finite"
            for scores in member["results"].values():
                scores.update(dict.fromkeys(scores, float("nan")))
        for bins in variant["reliability"].values():
            bins["before"] = {key: [0] * 15 for key in bins["before"]}
            bins["after"] = None
    reader = _read(_page("x", report, build_metrics(report)))
    assert "36 of 36 members diverged." in " ".join(reader.text)


def test_a_missing_temperature_is_not_mentioned(report, build_metrics):
    page = _page("x", report, build_metrics(report))
    assert "The temperature was fitted" in page
    for variant in report["variants"]:
        for bins in variant["reliability"].values():
            del bins["after"]  # as for detection
    page = _page("x", report, build_metrics(report))
    assert "Bins pooled over the chosen members. The ECE" in page
    assert "The temperature was fitted" not in page


def test_missing_parts_of_a_report_are_omitted():
    bare = {
        "variants": [
            {
                "name": "a",
                "roles": {"student": {}},
                "members": [{"values": {}, "results": {"test": {"student/f1": 0.5}}}],
            }
        ]
    }
    assert "One variant was trained." in " ".join(_read(_page("x", bare, [])).text)


def test_combine_names_every_run(tmp_path, report, build_report, build_metrics):
    lone = build_report(("default",), roles=("student",), sweep={}, seeds=1, data="cifar10")
    _save(tmp_path / "one", report, [])
    _save(tmp_path / "two", lone, build_metrics(lone, every=250))
    out = html.combine([tmp_path / "one", tmp_path / "two"], tmp_path / "new/all.html")
    reader = _read(out.read_text())
    assert reader.links[:2] == ["#run-0", "#run-1"]
    assert {"run-0", "run-1"} <= set(reader.ids)
    assert "cifar10" in " ".join(reader.text)
    with pytest.raises(UserError, match="no workdir: name at least one"):
        html.combine([], out)
    with pytest.raises(UserError, match=r"three.*cannot be read"):
        html.combine([tmp_path / "three"], out)


def test_the_summary_names_the_selection_and_does_not_overclaim(report):
    text = summary_text.summary(from_json(RunSummary, report))
    assert "learning_rate was chosen by the mean accuracy on the validation split" in text
    assert "after the last step" in text
    ahead = copy.deepcopy(report)
    for member in ahead["variants"][2]["members"]:
        member["results"]["test"]["student/accuracy"] = 0.97 + 0.001 * member["values"]["seed"]
    for member in ahead["variants"][0]["members"]:
        member["results"]["test"]["student/accuracy"] = 0.96 + 0.004 * member["values"]["seed"]
    text = summary_text.summary(from_json(RunSummary, ahead))
    assert "that of bdkd: 97.10 ± 0.10 % (mean ± sd over 3 seeds); alone has 96.40 ± 0.40 %" in text
    assert "0.70 ± 0.30 points and positive in 3 of 3 seeds" in text
    assert "within one sd" not in text


def test_titles_stand_for_names(report):
    metrics = [{"step": 1, "split": "train", "variant": "bdkd", "student/loss": 1.0}]
    for variant, title in zip(report["variants"], ("CE", "KD", "BD-KD"), strict=True):
        variant["title"] = title
    record = with_titles(RunRecord("a", from_json(RunSummary, report), metrics=metrics))
    assert statistics.variant_names(record.report) == ["CE", "KD", "BD-KD"]
    baseline = statistics.baseline_of(record.report, "student")
    assert baseline.name == "CE"  # called alone in the config
    assert record.metrics[0]["variant"] == "BD-KD"
    roles = report["variants"][1]["roles"]
    roles["teacher"]["source"] = "variant alone"
    report["config"]["variants"] = {"kd": {"num_steps": 50}}
    record = with_titles(RunRecord("a", from_json(RunSummary, report)))
    assert record.report.variants[1].roles["teacher"].source == "variant CE"
    assert ", KD for 50 steps" in summary_text.summary(record.report)
    report["variants"][0]["title"] = "KD"
    same = RunRecord("a", from_json(RunSummary, report))
    assert with_titles(same) == same


def test_the_summary_names_the_roles_that_share_a_choice(report):
    for role in ("student", "teacher"):
        report["variants"][2]["chosen"][role]["judge"] = "student"
    text = summary_text.summary(from_json(RunSummary, report))
    assert "the teacher of bdkd is trained with the student at the same values." in text
