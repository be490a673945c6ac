"""Types of the options that are numbers, each with its range. Not a verb."""

from jsonargparse.typing import restricted_number_type

Rate = restricted_number_type("rate", float, [(">", 0), ("<=", 1)])
Cosine = restricted_number_type("cosine", float, [(">=", -1), ("<=", 1)])
Percent = restricted_number_type("percent", float, [(">=", 0), ("<=", 100)])
Amount = restricted_number_type("amount", float, [(">=", 0), ("<=", 1e12)])
Count = restricted_number_type("count", int, [(">=", 1), ("<=", 10**9)])
CountOrNone = restricted_number_type("count or 0", int, [(">=", 0), ("<=", 10**9)])
LargeCount = restricted_number_type("whole number", float, [(">=", 1), ("<=", 1e15)])
Threads = restricted_number_type("threads", int, [(">=", 1), ("<=", 1024)])
Pixels = restricted_number_type("pixels", int, [(">=", 16), ("<=", 4096)])
Port = restricted_number_type("port", int, [(">=", 0), ("<=", 65535)])
