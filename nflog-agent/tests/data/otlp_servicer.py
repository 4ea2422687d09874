"""An OTLP logs receiver by grpcio and the opentelemetry-proto package.

Prints the port that it listens on, then one JSON line per request: whether the request was free of unknown fields and
serialises to the same bytes again, and the request in OTLP's JSON form. Ends when its standard input does.
"""

import json
import sys
from concurrent import futures

import grpc
from google.protobuf import json_format
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2

SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"


def unknown_fields(message):
    """How many unknown fields a message and its parts have."""
    count = len(UnknownFieldSet(message))
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        parts = [value] if isinstance(value, type(message)) or hasattr(value, "ListFields") else value
        count += sum(unknown_fields(part) for part in parts)
    return count


def export(payload, _context):
    """Decodes a request and reports it."""
    request = logs_service_pb2.ExportLogsServiceRequest.FromString(payload)
    report = {
        "unknown_fields": unknown_fields(request),
        "identical": request.SerializeToString() == payload,
        "request": json_format.MessageToDict(request),
    }
    print(json.dumps(report), flush=True)
    return logs_service_pb2.ExportLogsServiceResponse()


def main():
    """Serves until standard input ends."""
    handler = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=None,
        response_serializer=logs_service_pb2.ExportLogsServiceResponse.SerializeToString,
    )
    # One worker, so that reports do not mix.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(grace=None)


if __name__ == "__main__":
    main()
