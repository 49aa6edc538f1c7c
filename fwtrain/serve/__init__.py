"""`fwtrain serve`: a trained run behind a websocket, in the convention of openpi's policy server.

The server sends one binary message of metadata when a client connects. Then each binary message is an observation, and
is answered by one message: binary {"actions", "server_timing", "policy_timing"}, or text, one sentence, for a mistake;
the connection stays usable. The answer to a state far outside the training statistics (degrees for radians, a gripper
of 0 .. 255) has a key "warnings" too, a list of sentences; the server's log has each once. Binary messages are msgpack
with openpi's encoding of arrays (`fwtrain.serve.wire`); `openpi_client.WebsocketClientPolicy` speaks it, and
`fwtrain.serve.client.PolicyClient` needs no openpi.

An observation is a map. For a camera `c` and the run's state and instruction, the first key found counts:

    uint8 [H, W, 3] or [3, H, W] RGB   observation/c | observation.images.c | c | images: {c: ..}
    number [Ds], the store's units     observation/state | observation.state | state
    text                               prompt | task
    whole number, optional             seed (of this chunk's noise; the server's --seed otherwise)

so that openpi's LIBERO example (observation/image, observation/wrist_image, observation/state, prompt) fits a run on
LIBERO as it is. Other keys are ignored. `actions` is float32 [n, a] as the robot takes them (`Policy.commands`), where
n is the recipe's deploy.execute or --execute.

Clients of vla-eval connect to the path /vla-eval (`fwtrain.serve.vla_eval`). GET /healthz answers 200. Requests from
several clients are computed as one batch. Source of the convention:
src/openpi/serving/websocket_policy_server.py and openpi_client 0.1.2.
"""
