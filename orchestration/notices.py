"""Somebody is told of a run that failed, crashed or is held: by Prefect's server, to a webhook.

The server does it and no worker, since the death of a worker is what has to be told too. `prefect deploy` sets it up
where $GRIST_NOTIFY_URL says where to: a webhook that takes {"text": ...}, as those of Slack, Mattermost, Discord
(/slack) and Teams' workflows do. Its address is a secret, and lies in Prefect's store of secrets, encrypted.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.types import SecretDict

from gristmill.orchestration.stack.folder import POOL

NOTIFY_URL = "GRIST_NOTIFY_URL"
BLOCK = "gristmill-notices"
NAME = "gristmill: a run needs somebody"
STATES = ("Failed", "Crashed", "TimedOut", "Held")
"""Names of states that are told. A run that was cancelled was meant to be."""
SUBJECT = "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}"
BODY = "{{ flow_run.state.message }}"


def set_up(url: str) -> None:
    """Makes block and automation, or brings them up to date with this address."""
    block = CustomWebhookNotificationBlock(
        name="gristmill",
        url="{{webhook}}",
        json_data={"text": "{{subject}}\n{{body}}"},
        headers=None,
        cookies=None,
        secrets=SecretDict({"webhook": url}),
    )
    saved = block.save(BLOCK, overwrite=True)
    automation = AutomationCore(
        name=NAME,
        description="Tells the webhook of $GRIST_NOTIFY_URL; made by `prefect deploy`.",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{name}" for name in STATES},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "work-pool", "prefect.resource.name": POOL},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[SendNotification(block_document_id=UUID(str(saved)), subject=SUBJECT, body=BODY)],
    )
    with get_client(sync_client=True) as client:
        there = client.read_automations_by_name(NAME)
        for earlier in there:
            client.delete_automation(earlier.id)
        client.create_automation(automation)
