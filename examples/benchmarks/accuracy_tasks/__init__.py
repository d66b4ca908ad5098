"""The tasks of accuracy.py, by name."""

from accuracy_tasks import digits, photos, pitch
from accuracy_tasks.base import Task

TASKS: dict[str, Task] = {task.name: task for task in (*digits.TASKS, *photos.TASKS, *pitch.TASKS)}
QUICK = digits.QUICK
