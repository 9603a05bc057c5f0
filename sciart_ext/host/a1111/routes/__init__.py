"""What the routes under /sciart/v1/ do, and what they ask of the host's own API."""
