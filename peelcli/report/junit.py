"""A report as JUnit XML: every bound and every check of the run is a test case."""

from __future__ import annotations

from xml.etree import ElementTree

from peelcli.report.comparison import headline
from peelcli.report.escaping import xml
from peelcli.report.overview import Report


def render(report: Report) -> str:
    """All bounds and checks; where there are none, one case that says what was looked at."""
    suite = ElementTree.Element("testsuite", name="peel")
    for verdict in report.verdicts:
        case = _case(suite, "peel.bounds", verdict.bound)
        if not verdict.ok:
            ElementTree.SubElement(case, "failure", message=xml(verdict.told), type="bound")
    for check in report.run.checks if report.run else ():
        case = _case(suite, "peel.checks", check.name)
        if check.ok is False:
            ElementTree.SubElement(case, "failure", message=xml(check.note or "did not hold"), type="check")
        elif check.ok is None:
            ElementTree.SubElement(case, "skipped", message=xml(check.note or "not comparable"))
    if not len(suite):
        ElementTree.SubElement(_case(suite, "peel", report.path), "system-out").text = xml(headline(report.models[-1]))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(report.violated) + len(report.failed)))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=classname, name=xml(name))
