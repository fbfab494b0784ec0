"""An emulator of Google Pub/Sub, for tests and for work without a network.

The official clients find it by PUBSUB_EMULATOR_HOST. Nothing here is imported by the rest of Jobyard, and gRPC only once
the emulator starts: both come with the extra `gcp`.
"""
