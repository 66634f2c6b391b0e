"""From a bundle to images: schedules, noise, the chain, tasks and backends. Nothing here imports more than numpy at its top."""
