"""What the system tests share."""

from tests.system.service_process import service as service
