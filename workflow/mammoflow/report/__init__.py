"""Report: metrics with patient-bootstrap intervals, tables, the paper's figures and the web page.

`study` loads every table; `counts`, `detection`, `mining`, `classification`, `shortcut`, `position` and `relevance`
compute, with `froc`, `roc` and `bootstrap`; `metrics` gathers what they give, as JSON and as tables; `figures` draws
and `page` shows.
"""
