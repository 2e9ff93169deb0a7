"""The study of students: its task is sound."""

from __future__ import annotations

from autocut.task.check import faults_of


def test_the_students_are_much_smaller_than_their_teacher(study_task):
    """One is narrower, one is shallower; both have less than a tenth of the weights."""
    task = study_task("students")
    sizes = {name: sum(part.numel() for part in task.build_student(name).parameters()) for name in task.student_names}

    assert sizes == {"narrow": 4258, "shallow": 4114}
    assert sum(part.numel() for part in task.build_model().parameters()) == 58_474
    assert faults_of(task) == []
