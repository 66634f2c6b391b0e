"""From a checkpoint to a bundle: graphs per direction, their verification, and the folder they are published in."""
