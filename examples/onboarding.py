"""Merchant onboarding in one process. The workflow is ``orchestrator/demo/onboarding.py``: read that first.

One merchant gets through, one is on a sanctions list, one has a bank that fails once, and one is refused
so late, and has such a bank, that not everything can be undone.
"""

import asyncio

import orchestrator
from orchestrator.activity import find_definitions
from orchestrator.contrib import onboarding as activities
from orchestrator.demo.inputs import merchants
from orchestrator.demo.onboarding import MerchantOnboarding
from orchestrator.errors import WorkflowFailure


async def main() -> None:
    async with orchestrator.embedded(
        workflows=[MerchantOnboarding], activities=find_definitions(activities)
    ) as client:
        handles = [
            await client.start_workflow(MerchantOnboarding.run, merchant, id=merchant.id)
            for merchant in merchants()
        ]
        for handle in handles:
            try:
                print(handle.id, "can sell:", await handle.result())
            except WorkflowFailure as failure:
                tags = (await handle.describe()).row.tags
                print(handle.id, "was refused:", root_of(failure), *tags)


def root_of(error: BaseException) -> BaseException:
    return root_of(error.__cause__) if error.__cause__ else error


if __name__ == "__main__":
    asyncio.run(main())
