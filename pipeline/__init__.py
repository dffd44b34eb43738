"""From a directory to a build in S3, and the client of the barrier service's API. Never talks to ZooKeeper."""
