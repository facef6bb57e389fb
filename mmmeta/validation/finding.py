"""What a check finds."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """A mistake, or what is likely to be one.

    Attributes:
        key (str): The key of the config that it is about.
        text (str): One sentence: the value that is there, why it is wrong, and the value to write.
        is_warning (bool): Whether a run may be meant as it is. Defaults to False.
        is_fatal (bool): Whether no run can begin with it. Defaults to False.
    """

    key: str
    text: str
    is_warning: bool = False
    is_fatal: bool = False


@dataclass(frozen=True)
class Report:
    """What a check of a config and its data finds.

    Attributes:
        findings (list[Finding]): What is wrong, or likely to be.
        facts (list[str]): What a run will do.
        read (list[str]): The data that were read.
    """

    findings: list[Finding] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
