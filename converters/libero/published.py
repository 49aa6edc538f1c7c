"""LIBERO's published suites and their 130 tasks, and what their reading needs to tell them from others.

Task names: LIBERO libero/libero/benchmark/libero_suite_task_map.py.
"""

from __future__ import annotations

import re

RAW_DEMOS = 50
"""Demonstrations in every published task file."""

SUITE_TASKS = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10, "libero_90": 90}
"""Task files of every suite, in the order in which Fast-WAM lists them."""

REGENERATED_DEMOS = {"libero_spatial": 432, "libero_object": 454, "libero_goal": 428, "libero_10": 379}
"""Demonstrations that the published no-ops regeneration kept; other simulator versions keep a few more or less."""

_SPATIAL = """between_the_plate_and_the_ramekin next_to_the_ramekin from_table_center on_the_cookie_box
    in_the_top_drawer_of_the_wooden_cabinet on_the_ramekin next_to_the_cookie_box on_the_stove next_to_the_plate
    on_the_wooden_cabinet"""
_OBJECT = """alphabet_soup cream_cheese salad_dressing bbq_sauce ketchup tomato_sauce butter milk chocolate_pudding
    orange_juice"""
_GOAL = """open_the_middle_drawer_of_the_cabinet put_the_bowl_on_the_stove put_the_wine_bottle_on_top_of_the_cabinet
    open_the_top_drawer_and_put_the_bowl_inside put_the_bowl_on_top_of_the_cabinet
    push_the_plate_to_the_front_of_the_stove put_the_cream_cheese_in_the_bowl turn_on_the_stove
    put_the_bowl_on_the_plate put_the_wine_bottle_on_the_rack"""
_LONG = """LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket
    LIVING_ROOM_SCENE2_put_both_the_cream_cheese_box_and_the_butter_in_the_basket
    KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it
    KITCHEN_SCENE4_put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet_and_close_it
    LIVING_ROOM_SCENE5_put_the_white_mug_on_the_left_plate_and_put_the_yellow_and_white_mug_on_the_right_plate
    STUDY_SCENE1_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy
    LIVING_ROOM_SCENE6_put_the_white_mug_on_the_plate_and_put_the_chocolate_pudding_to_the_right_of_the_plate
    LIVING_ROOM_SCENE1_put_both_the_alphabet_soup_and_the_cream_cheese_box_in_the_basket
    KITCHEN_SCENE8_put_both_moka_pots_on_the_stove
    KITCHEN_SCENE6_put_the_yellow_and_white_mug_in_the_microwave_and_close_it"""

SUITE_OF_TASK = {
    **{f"pick_up_the_black_bowl_{where}_and_place_it_on_the_plate": "libero_spatial" for where in _SPATIAL.split()},
    **{f"pick_up_the_{thing}_and_place_it_in_the_basket": "libero_object" for thing in _OBJECT.split()},
    **dict.fromkeys(_GOAL.split(), "libero_goal"),
    **dict.fromkeys(_LONG.split(), "libero_10"),
}
"""The 40 tasks that Fast-WAM trains on; every other task with a scene prefix is one of libero_90."""

_SHORT = """
    KITCHEN_SCENE10: close_the_top_drawer_of_the_cabinet
        close_the_top_drawer_of_the_cabinet_and_put_the_black_bowl_on_top_of_it
        put_the_black_bowl_in_the_top_drawer_of_the_cabinet
        put_the_butter_at_the_back_in_the_top_drawer_of_the_cabinet_and_close_it
        put_the_butter_at_the_front_in_the_top_drawer_of_the_cabinet_and_close_it
        put_the_chocolate_pudding_in_the_top_drawer_of_the_cabinet_and_close_it
    KITCHEN_SCENE1: open_the_bottom_drawer_of_the_cabinet open_the_top_drawer_of_the_cabinet
        open_the_top_drawer_of_the_cabinet_and_put_the_bowl_in_it put_the_black_bowl_on_the_plate
        put_the_black_bowl_on_top_of_the_cabinet
    KITCHEN_SCENE2: open_the_top_drawer_of_the_cabinet put_the_black_bowl_at_the_back_on_the_plate
        put_the_black_bowl_at_the_front_on_the_plate put_the_middle_black_bowl_on_the_plate
        put_the_middle_black_bowl_on_top_of_the_cabinet
        stack_the_black_bowl_at_the_front_on_the_black_bowl_in_the_middle
        stack_the_middle_black_bowl_on_the_back_black_bowl
    KITCHEN_SCENE3: put_the_frying_pan_on_the_stove put_the_moka_pot_on_the_stove turn_on_the_stove
        turn_on_the_stove_and_put_the_frying_pan_on_it
    KITCHEN_SCENE4: close_the_bottom_drawer_of_the_cabinet
        close_the_bottom_drawer_of_the_cabinet_and_open_the_top_drawer
        put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet put_the_black_bowl_on_top_of_the_cabinet
        put_the_wine_bottle_in_the_bottom_drawer_of_the_cabinet put_the_wine_bottle_on_the_wine_rack
    KITCHEN_SCENE5: close_the_top_drawer_of_the_cabinet put_the_black_bowl_in_the_top_drawer_of_the_cabinet
        put_the_black_bowl_on_the_plate put_the_black_bowl_on_top_of_the_cabinet
        put_the_ketchup_in_the_top_drawer_of_the_cabinet
    KITCHEN_SCENE6: close_the_microwave put_the_yellow_and_white_mug_to_the_front_of_the_white_mug
    KITCHEN_SCENE7: open_the_microwave put_the_white_bowl_on_the_plate
        put_the_white_bowl_to_the_right_of_the_plate
    KITCHEN_SCENE8: put_the_right_moka_pot_on_the_stove turn_off_the_stove
    KITCHEN_SCENE9: put_the_frying_pan_on_the_cabinet_shelf put_the_frying_pan_on_top_of_the_cabinet
        put_the_frying_pan_under_the_cabinet_shelf put_the_white_bowl_on_top_of_the_cabinet turn_on_the_stove
        turn_on_the_stove_and_put_the_frying_pan_on_it
    LIVING_ROOM_SCENE1: pick_up_the_alphabet_soup_and_put_it_in_the_basket
        pick_up_the_cream_cheese_box_and_put_it_in_the_basket pick_up_the_ketchup_and_put_it_in_the_basket
        pick_up_the_tomato_sauce_and_put_it_in_the_basket
    LIVING_ROOM_SCENE2: pick_up_the_alphabet_soup_and_put_it_in_the_basket
        pick_up_the_butter_and_put_it_in_the_basket pick_up_the_milk_and_put_it_in_the_basket
        pick_up_the_orange_juice_and_put_it_in_the_basket pick_up_the_tomato_sauce_and_put_it_in_the_basket
    LIVING_ROOM_SCENE3: pick_up_the_alphabet_soup_and_put_it_in_the_tray
        pick_up_the_butter_and_put_it_in_the_tray pick_up_the_cream_cheese_and_put_it_in_the_tray
        pick_up_the_ketchup_and_put_it_in_the_tray pick_up_the_tomato_sauce_and_put_it_in_the_tray
    LIVING_ROOM_SCENE4: pick_up_the_black_bowl_on_the_left_and_put_it_in_the_tray
        pick_up_the_chocolate_pudding_and_put_it_in_the_tray pick_up_the_salad_dressing_and_put_it_in_the_tray
        stack_the_left_bowl_on_the_right_bowl_and_place_them_in_the_tray
        stack_the_right_bowl_on_the_left_bowl_and_place_them_in_the_tray
    LIVING_ROOM_SCENE5: put_the_red_mug_on_the_left_plate put_the_red_mug_on_the_right_plate
        put_the_white_mug_on_the_left_plate put_the_yellow_and_white_mug_on_the_right_plate
    LIVING_ROOM_SCENE6: put_the_chocolate_pudding_to_the_left_of_the_plate
        put_the_chocolate_pudding_to_the_right_of_the_plate put_the_red_mug_on_the_plate
        put_the_white_mug_on_the_plate
    STUDY_SCENE1: pick_up_the_book_and_place_it_in_the_front_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_left_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_right_compartment_of_the_caddy
        pick_up_the_yellow_and_white_mug_and_place_it_to_the_right_of_the_caddy
    STUDY_SCENE2: pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_front_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_left_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_right_compartment_of_the_caddy
    STUDY_SCENE3: pick_up_the_book_and_place_it_in_the_front_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_left_compartment_of_the_caddy
        pick_up_the_book_and_place_it_in_the_right_compartment_of_the_caddy
        pick_up_the_red_mug_and_place_it_to_the_right_of_the_caddy
        pick_up_the_white_mug_and_place_it_to_the_right_of_the_caddy
    STUDY_SCENE4: pick_up_the_book_in_the_middle_and_place_it_on_the_cabinet_shelf
        pick_up_the_book_on_the_left_and_place_it_on_top_of_the_shelf
        pick_up_the_book_on_the_right_and_place_it_on_the_cabinet_shelf
        pick_up_the_book_on_the_right_and_place_it_under_the_cabinet_shelf
"""

LIBERO_90 = frozenset(
    f"{scene}_{task}" for scene, tasks in re.findall(r"(\w+): ((?:[a-z_]+\s+)+)", _SHORT) for task in tasks.split()
)
"""The 90 tasks of libero_90."""


TEXTS = frozenset(re.sub(r"^[A-Z_]+_SCENE[0-9]+_", "", task).replace("_", " ") for task in (*SUITE_OF_TASK, *LIBERO_90))
"""The instructions of the 130 tasks, which share some."""


def is_published(task: str) -> bool:
    """Whether a task is one of the 130 that evaluations know, by its name alone."""
    return task in SUITE_OF_TASK or task in LIBERO_90
